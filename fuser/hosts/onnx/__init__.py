"""ONNX, through protobuf and onnx-ir."""
