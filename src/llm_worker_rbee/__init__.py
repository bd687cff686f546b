"""The process `llm-worker-rbee`: holds one loaded model, generates and streams."""
