"""`llm-api doctor`: one module for what each kind of check looks at. Each check gives findings, and raises nothing."""
