"""Where machines meet the world: loop, transport interface, bundle, spool, simulation."""
