"""The program that stands in for ``criu`` when the agent runs runc.

runc starts ``criu swrk 3`` once per request and speaks protobuf over descriptor 3. CRIU streams its
images only when asked on the command line, never over that socket. So this program takes the first
entry of runc's PATH under the name ``criu``, looks at each request without consuming it, and

- hands over to the real CRIU, unchanged, for everything but a dump or restore that is to be
  streamed;
- otherwise runs ``criu dump|restore --stream`` with the same meaning, and plays CRIU's part towards
  runc: a NOTIFY for each action-script hook, and the final response.

It runs inside the operation, mostly inside the freeze: standard library only, and little of that
(``import socket`` alone costs as much as the interpreter's start, 10 ms).
"""
