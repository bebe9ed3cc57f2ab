"""ONNX graphs: exported, fused, in FP16 or INT8, and run over rows."""
