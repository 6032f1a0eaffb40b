"""mmif in a hospital's network: receive, fuse, send on."""
