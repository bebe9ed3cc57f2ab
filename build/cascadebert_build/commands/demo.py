"""placeholder."""


def add_demo_parser(commands):
    pass
