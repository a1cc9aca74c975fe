"""Network parts in plain torch: every part that sees padded frames takes a mask."""
