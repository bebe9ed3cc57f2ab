"""How files of rows are read: formats, encodings, tables, JSON and Parquet."""
