"""What a request costs: TokenHub beside a bare proxy, measured on this machine.

`python -m benchmarks` runs it. Nothing here is imported by the gateway.
"""
