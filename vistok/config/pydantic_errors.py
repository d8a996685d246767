"""What pydantic's errors mean, in the words of YAML, where the schema of the place is not known."""

from __future__ import annotations

from typing import Any

_EXPECTED = {
    "a mapping": (
        *("model_type", "model_attributes_type", "dict_type", "mapping_type", "dataclass_type"),
        *("dataclass_exact_type", "frozen_dict_type", "ordered_dict_type", "counter_type"),
        *("arguments_type", "get_attribute_error", "no_such_attribute"),
    ),
    "a list": (
        *("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type", "deque_type"),
        *("named_tuple_type", "iteration_error"),
    ),
    "text": (
        *("string_type", "string_unicode", "bytes_type", "bytes_invalid_encoding", "invalid_key"),
        "string_not_ascii",
    ),
    "a whole number": (
        *("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
        *("decimal_whole_digits",),
    ),
    "a number": (
        *("float_type", "float_parsing", "decimal_type", "decimal_parsing", "finite_number"),
        *("fraction_type", "fraction_parsing", "complex_type", "complex_str_parsing"),
    ),
    "true or false": ("bool_type", "bool_parsing"),
    "null": ("none_required",),
    "a number above {gt}": ("greater_than",),
    "a number of {ge} or more": ("greater_than_equal",),
    "a number below {lt}": ("less_than",),
    "a number of at most {le}": ("less_than_equal",),
    "a multiple of {multiple_of}": ("multiple_of",),
    "{min_length} or more of them": ("too_short",),
    "at most {max_length} of them": ("too_long",),
    "text of {min_length} or more characters": ("string_too_short", "bytes_too_short"),
    "text of at most {max_length} characters": ("string_too_long", "bytes_too_long"),
    "text of the form {pattern}": ("string_pattern_mismatch",),
    "one of: {expected}": ("literal_error", "enum"),
    "a kind of: {expected_tags}": ("union_tag_invalid",),
    "a mapping with a `kind`": ("union_tag_not_found",),
    "a date": (
        *("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"),
        *("date_past", "date_future"),
    ),
    "a time": (
        *("time_type", "time_parsing", "time_delta_type", "time_delta_parsing", "timezone_naive"),
        *("timezone_aware", "timezone_offset"),
    ),
    "a date and a time": (
        *("datetime_type", "datetime_parsing", "datetime_object_invalid", "datetime_past"),
        *("datetime_from_date_parsing", "datetime_future"),
    ),
    "an address": ("url_type", "url_parsing", "url_syntax_violation", "url_too_long", "url_scheme"),
    "a UUID": ("uuid_type", "uuid_parsing", "uuid_version"),
    "a number of fewer digits": ("decimal_max_digits", "decimal_max_places"),
    "JSON": ("json_invalid", "json_type"),
    "plain values that are not inside themselves": ("recursion_loop", "recursion_depth_exceeded"),
}
EXPECTED = {kind: words for words, kinds in _EXPECTED.items() for kind in kinds}
"""Type of a pydantic error -> what was expected, with the names of its context in braces."""

_ANY = "another value"  # of what no YAML can give: a class, a function, an object of Python


def reason(item: Any) -> str:
    """What was expected at the place of an error of pydantic, or the rule that it broke."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        text = str(context.get("error", item["msg"]))
        return text[:1].lower() + text[1:] if text[1:2].islower() else text
    if kind in ("literal_error", "enum"):
        context = {"expected": context["expected"].replace("'", "").replace(" or ", ", ")}
    if kind == "union_tag_invalid":
        context = {"expected_tags": context["expected_tags"].replace("'", "")}
    return EXPECTED.get(kind, _ANY).format(**context)
