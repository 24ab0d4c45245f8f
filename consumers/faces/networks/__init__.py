"""dlib's two networks without dlib's way of running them: weights → ONNX graphs → onnxruntime."""
