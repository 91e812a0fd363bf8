"""What several engine families use: chat templates, grammars, lengths, memory, threads."""
