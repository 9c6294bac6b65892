"""Raw pooled connections to engines: framing, connections, deadlines, and the transport made of them."""
