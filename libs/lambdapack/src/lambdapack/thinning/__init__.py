"""Make artifacts smaller and start faster: omit code, defer imports, compile ahead."""
