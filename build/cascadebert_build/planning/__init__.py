"""How many machines a load takes: a simulated fleet."""
