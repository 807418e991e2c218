import Glibc

extension Fault {
  /// The clock is set back and forward. There is no such fault with FUSE, because the clock of all other programs would be set, too.
  static let clock = Fault("clock", backends: [.cuse]) { bed in
    try bed.check("clock: the daemon starts") { try bed.start() }
    let clients = try bed.startUndisturbedClients("--seconds", "6", "--initial", "00")
    for _ in 0..<3 {
      for change in [-100_000_000, 200_000_000, -100_000_000] {
        try sleep(seconds: 0.5)
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        time.tv_sec += change
        try require(clock_settime(CLOCK_REALTIME, &time) == 0, "clock_settime: \(errorText())")
      }
    }
    try bed.check("clock set back and forward under load: no call fails, and no byte is wrong") {
      try expectUndisturbed(clients)
    }
    try bed.check("clock set back: trace_pipe follows") {
      let follow = try bed.shell("head -n 1 \"$tree/trace_pipe\"", seconds: 60)
      try require(follow.exit == .status(0) && !follow.output.isEmpty, "\(follow.exit)")
    }
    let trace = try bed.shell("cat \"$tree/trace\"", seconds: 60).output
    let times = trace.matches(of: #/ (\d+\.\d+): /#).compactMap { Double($0.output.1) }
    try bed.check("clock set back: the times in the trace do not go back") {
      try require(times == times.sorted(), "they do:\n\(trace)")
    }
    try bed.check("clock set back: ... and there are some") {
      try require(!times.isEmpty, trace)
    }
    try bed.check("clock set back: the daemon ends") { try bed.stop() }
  }
}
