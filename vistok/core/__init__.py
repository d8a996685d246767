"""The ground floor: records, draws, keyed random numbers, schedules, shapes."""
