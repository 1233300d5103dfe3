"""The words between an engine's host and the child process that it lives in.

One socket pair; each message is a frame: two big-endian lengths of four bytes, a JSON header, then
raw bytes (a page's image, else empty). JSON and bytes, because a pickle from a process that reads
hostile pixels would be a way out of it.

    host -> child   Read, Cancel                     pages join and leave at any time
    child -> host   Ready, Working, Delta, Done, Failed, Tick

Requests have ids of the host's choosing, unique in a child's life. An answer repeats the id and the
checksum of the image, so that an answer for another page can be told.
"""
