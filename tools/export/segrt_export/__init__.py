"""segrt-export: Paddle inference models to ONNX, proved equal to Paddle."""
