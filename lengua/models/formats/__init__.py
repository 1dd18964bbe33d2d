"""File formats of one Whisper: Hugging Face's folder, CTranslate2's model.bin, ONNX, ggml, OpenAI's names."""
