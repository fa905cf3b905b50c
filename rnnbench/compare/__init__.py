"""Compare times: intervals of ratios, and the verdicts that follow from them."""
