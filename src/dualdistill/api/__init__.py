"""The functions and classes that `import dualdistill` offers."""
