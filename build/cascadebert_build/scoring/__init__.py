"""A corpus through a cascade, stage by stage, into files that are each written once."""
