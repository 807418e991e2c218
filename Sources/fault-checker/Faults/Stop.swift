import Glibc

extension Fault {
  /// SIGSTOP of the daemon.
  static let stopDaemon = Fault("stop-daemon") { bed in
    try bed.check("SIGSTOP of the daemon: the daemon starts") { try bed.start() }
    let server = try bed.server()
    let clients = try bed.startUndisturbedClients("--seconds", "5", "--reopen", "--initial", "00")
    try stopAndGo(server)
    try bed.check(
      "SIGSTOP and SIGCONT of the daemon under load: its clients wait, no call fails, and no byte is wrong"
    ) { try expectUndisturbed(clients) }
    bed.tap.comment(clients.printed)
    Glibc.kill(server, SIGSTOP)
    _ = try soon { isStopped(server) }
    try bed.check("SIGSTOP of the daemon: a command on the node waits, and a signal ends it") {
      let reader = try bed.background("exec head -c 1 \"$node\"")
      try sleep(seconds: 1)
      try require(reader.poll() == nil, "it does not wait")
      reader.signal(SIGTERM)
      try require(reader.wait(seconds: 20), is: .signal(SIGTERM))
    }
    Glibc.kill(server, SIGCONT)
    try bed.check("SIGCONT of the daemon: it answers") { try bed.writeAndRead("B") }
    try bed.check("SIGSTOP of the daemon: it ends") { try bed.stop() }
  }

  /// SIGSTOP of clients.
  static let stopClients = Fault("stop-clients") { bed in
    try bed.check("SIGSTOP of clients: the daemon starts") { try bed.start() }
    let clients = try bed.startUndisturbedClients("--seconds", "5", "--reopen", "--initial", "00")
    try stopAndGo(clients.process)
    try bed.check("SIGSTOP and SIGCONT of clients: no call fails, and no byte is wrong") {
      try expectUndisturbed(clients)
    }
    let others = try bed.startUndisturbedClients("--seconds", "5")
    try randomPause()
    others.signal(SIGSTOP)
    try bed.check("SIGSTOP of clients: others are served") { try bed.read() }
    others.signal(SIGCONT)
    try bed.check("SIGSTOP of clients: they go on") { try expectUndisturbed(others) }
    try bed.check("SIGSTOP of clients: the daemon ends") { try bed.stop() }
  }
}

/// Waits for clients, and checks that none of their calls has failed.
func expectUndisturbed(_ clients: Child) throws {
  let exit = try clients.wait(seconds: 600)
  try require(exit == .status(0), "\(exit)\n\(clients.printed)")
}

private func stopAndGo(_ process: pid_t) throws {
  for _ in 0..<4 {
    Glibc.kill(process, SIGSTOP)
    do { try sleep(seconds: 0.2) } catch {
      Glibc.kill(process, SIGCONT)
      throw error
    }
    Glibc.kill(process, SIGCONT)
    try randomPause()
  }
}
