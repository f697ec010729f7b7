"""Power and heat of an emulated device: sensors whose readings follow the CPU time that the device really used.

- `model` turns CPU seconds into joules, degrees and throttling; `sensors` turns those into the text files that the
  drivers of real sensors show. Both are pure: the clock and the CPU time are arguments.
- `cgroup` counts a device's CPU time and really slows it down; `server` is one process per device that serves the files
  through FUSE and writes the ground truth beside them. It stands outside of the device, in the machine's own pid
  namespace and in no cgroup of the device, so it costs the device nothing and nothing on the device can reach it.
- The mount is inside the device's own mount namespace and the server has the only handle of it: when either of them
  ends, however rudely, the kernel takes the other side along.

The watts are those of a model with a board's idle and busy power, never a measurement of such a board.
"""
