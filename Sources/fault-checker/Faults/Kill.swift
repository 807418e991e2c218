import Glibc

extension Fault {
  /// SIGKILL of the daemon, under load.
  static let kill = Fault("kill") { bed in
    try bed.check("kill -9: the daemon starts") { try bed.start() }
    try bed.check(
      "kill -9 under load, \(bed.settings.kills) times: each call ends with an error, no byte is wrong, and the next start works at once"
    ) { try bed.killUnderLoad { [try bed.server()] } }
    Glibc.kill(try bed.server(), SIGKILL)
    try bed.check("kill -9: without a next start, nothing is left") { try bed.nothingLeft() }
  }

  /// SIGKILL of the daemon and of the process that clears up after it.
  static let killBoth = Fault("kill-both") { bed in
    let prefix = "kill -9 of daemon and keeper"
    try bed.check("\(prefix): the daemon starts") { try bed.start() }
    try bed.check("\(prefix) under load, \(bed.settings.kills) times: the same") {
      try bed.killUnderLoad { [try bed.keeper(), try bed.server()] }
    }
    for process in [try bed.keeper(), try bed.server()] { Glibc.kill(process, SIGKILL) }
    if bed.settings.backend == .fuse {
      try bed.check("\(prefix): the node says that nobody serves it") {
        var result: (exit: Exit, output: String)?
        let isSaid = try soon {
          let read = try bed.shell("head -c 1 \"$node\"")
          result = read
          return read.exit != .status(0)
            && read.output.contains("Transport endpoint is not connected")
        }
        try require(isSaid, "\(result.map { "\($0.exit): \($0.output)" } ?? "")")
      }
    } else {
      try bed.check("\(prefix): the kernel takes the node away") {
        try require(try soon { !exists(bed.node) }, "\(bed.node) is left")
      }
    }
    try bed.check("\(prefix): status says that the next start clears what is left") {
      let status = try bed.shell("\"$daemon\" status")
      let line = status.output.split(separator: "\n").first { $0.hasPrefix("\(bed.node):") }
      try require(
        String(line ?? ""), says: "was killed; the next start there clears what it left")
    }
    try bed.check("\(prefix): it does") { try bed.start() }
    try bed.check("\(prefix): the next one leaves nothing") { try bed.stop() }
  }
}

extension TestBed {
  /// Kills the running daemon and starts it again at once, many times.
  fileprivate func killUnderLoad(_ victims: () throws -> [pid_t]) throws {
    for round in 1...settings.kills {
      do {
        try killOnce(try victims())
      } catch let failed as Failed {
        throw Failed("\(failed)\n... in round \(round) of \(settings.kills)")
      }
    }
  }

  private func killOnce(_ victims: [pid_t]) throws {
    let follower = try background("exec cat \"$tree/trace_pipe\"")
    try startClients("--initial", "00")
    try randomPause()
    for victim in victims { Glibc.kill(victim, SIGKILL) }
    try start()
    try writeAndRead("A")
    try waitForClients()
    try require(
      try soon { follower.poll() != nil }, "the process that follows trace_pipe still waits")
    // The next round starts with a new daemon.
    try require(treeMounts == 1, "there are \(treeMounts) mounts of the tree")
    try endDaemon()
    try start()
  }
}
