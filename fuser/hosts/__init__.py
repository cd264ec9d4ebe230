"""The host formats: the only modules that know one. Each is imported when a model of its kind is met."""
