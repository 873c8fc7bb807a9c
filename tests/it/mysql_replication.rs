//! A primary and a replica, promoted by hand.
