"""A whole site as processes on this machine, for the demo, the benchmarks and the tests.

bundles     trained bundles, frames and plans, made once and kept under $DDNN_HOME
train       from a data set to a bundle
planning    from a bundle to a plan of which workers compute which pieces
samples     what a bundle is judged by
site        broker, cloud, dashboard, edges, devices and workers as processes
watcher     listens to the site and keeps the best answer per sample
run         lets samples pass, kills and starts nodes
report      the figures of `ddnn demo --json`
control     lets the dashboard kill and start the processes
progress    bars and notes on standard error
"""
