import Glibc

extension Fault {
  /// SIGKILL of clients, inside system calls and under load.
  static let killClients = Fault("kill-clients") { bed in
    try bed.check("kill -9 of clients: the daemon starts") { try bed.start() }
    try bed.check("kill -9 of clients: the device works") { try bed.writeAndRead("D") }
    let server = try bed.server()
    let before = bed.openDescriptors(of: server)
    try bed.check(
      "kill -9 of clients inside read, write and a read of trace_pipe: they end at once"
    ) { try bed.killWaitingClients(of: server) }
    try bed.check("kill -9 of clients: the daemon serves the others") { try bed.writeAndRead("F") }
    try bed.check(
      "kill -9 of eight clients under load, \(bed.settings.kills) times: the daemon serves the others"
    ) {
      for _ in 0..<bed.settings.kills {
        let clients = try bed.startUndisturbedClients("--seconds", "100")
        try randomPause()
        clients.signal(SIGKILL)
        try require(clients.wait(seconds: 60), is: .signal(SIGKILL))
        try bed.writeAndRead("E")
      }
    }
    try bed.check("kill -9 of clients: no byte is wrong", ["--seconds", "1"], figures: false)
    try bed.check("kill -9 of clients: the daemon has no more descriptors open") {
      // The kernel tells the server of a close a little later. The server makes the descriptor that interrupts its sleep when it is busy
      // for the first time, which can be before or after the first count. Clients that are lost would leave many.
      let isAsBefore = try soon { (before...before + 1).contains(bed.openDescriptors(of: server)) }
      try require(isAsBefore, "\(bed.openDescriptors(of: server)), and \(before) before")
    }
    try bed.check("kill -9 of clients: the daemon ends") { try bed.stop() }
  }
}

extension TestBed {
  /// Kills clients that wait for the answer to a read or a write. The daemon has not taken their requests; a client whose request
  /// was taken waits until the daemon goes on.
  fileprivate func killWaitingClients(of server: pid_t) throws {
    Glibc.kill(server, SIGSTOP)
    defer { Glibc.kill(server, SIGCONT) }
    try require(try soon { isStopped(server) }, "SIGSTOP does not stop the daemon")
    let clients = [
      try background("exec head -c 1 \"$node\""),
      try background("printf D >\"$node\""),
      try background("exec head -c 100000000 \"$tree/trace_pipe\""),
    ]
    try sleep(seconds: 0.2)
    for client in clients {
      try require(client.poll() == nil, "a client did not wait")
      client.signal(SIGKILL)
      try require(client.wait(seconds: 60), is: .signal(SIGKILL))
    }
  }
}
