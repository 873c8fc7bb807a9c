//! Updates by DNS itself: what BIND and Knot refuse, and what becomes of their secondaries.
