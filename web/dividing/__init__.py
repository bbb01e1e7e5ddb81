"""Pages of allocation periods: boards, proposals, shares, and what everybody may check."""
