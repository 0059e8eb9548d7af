"""What stands beside a word in the patterns that tokenizers cut by."""

# Letters, marks and digits make a word; a hyphen, an apostrophe or an underscore beside it does not.
NOT_IN_WORD = r"(?![\p{L}\p{M}\p{N}])"
NOT_AFTER_WORD = r"(?<![\p{L}\p{M}\p{N}])"
