"""The configs that vistok ships, by system; `vistok train --list` names them."""
