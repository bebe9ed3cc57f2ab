"""ONNX graphs: export, fusion, FP16, INT8, and runs over rows."""
