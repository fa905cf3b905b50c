"""Compare times: intervals of ratios, and what they allow to be said."""
