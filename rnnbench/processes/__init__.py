"""Worker processes for code that may crash, hang, or leave files and processes behind."""
