"""Bundles: what their manifest says, the contract that they obey, opening them, and the packaged one."""
