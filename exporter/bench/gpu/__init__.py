"""What is measured on a GPU machine, in parts that can be stopped and continued: `measure`; `report` is its page."""
