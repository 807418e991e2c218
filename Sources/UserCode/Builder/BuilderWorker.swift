import CLinux
import CUserCode
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The process that does what the daemon asks for: it compiles, starts and ends processes with the user's code, and finds lines of addresses.
final class BuilderWorker {
  private let configuration: BuilderConfiguration
  private let directory: BuildDirectory
  private let daemon: FileDescriptor
  private let events: FileDescriptor
  private var guardian: FileDescriptor?
  private var toolchain: Toolchain?
  private var runtime: [RuntimeSource] = []

  /// The present files, and the programs that were made of them.
  private var snapshot = SourceSnapshot()
  private var programs: [CodeKind: BuiltProgram] = [:]
  /// The processes that were started, with their programs. A process that has ended keeps its number until the daemon asks for its end.
  private var processes: [pid_t: BuiltProgram] = [:]
  private var build:
    (
      process: pid_t, result: FileDescriptor, snapshot: SourceSnapshot, name: String
    )?
  /// The files that have changed while a compilation ran.
  private var next: SourceSnapshot?
  private var builds = 0

  /// The most processes that run at the same time: two for each node.
  private static let mostProcesses = 1000
  private static let largestTableMemory = 1 << 36
  private static let channelSize = (Int(channel_size()) + 4095) / 4096 * 4096

  init(
    _ configuration: BuilderConfiguration, _ directory: BuildDirectory, daemon: FileDescriptor,
    events: FileDescriptor, guardian: FileDescriptor
  ) {
    self.configuration = configuration
    self.directory = directory
    self.daemon = daemon
    self.events = events
    self.guardian = guardian
  }

  /// Compiles the code, tells the daemon, and works until the daemon ends.
  func run(_ support: SupportFiles, _ snapshot: SourceSnapshot) -> Never {
    _ = clinux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    do throws(CodeFailure) {
      toolchain = try Toolchain(support.files)
      try directory.write(support.files, to: "kernel")
      mkdir("\(directory.path)/tmp", 0o700)
      try directory.write(
        support.objects, to: Compilation.runtimeObjects(of: SupportFiles.version))
      runtime = support.files.compactMap(RuntimeSource.init).sorted { $0.name < $1.name }
      let output = try compilation(of: snapshot).run(kinds(changedIn: snapshot))
      take(output.programs, of: snapshot)
      try? SocketMessage(
        ["ready", Sandbox.hasLandlock ? "1" : "0", output.messages.joined(separator: "\n")]
      ).send(to: daemon)
    } catch {
      try? SocketMessage(["failed", error.description]).send(to: daemon)
      finish()
    }
    while true { wait() }
  }

  private func wait() {
    var entries = [daemon, guardian, build?.result].map {
      pollfd(fd: $0?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
    }
    guard poll(&entries, 3, -1) > 0 else { return }
    if entries[2].revents != 0 { endBuild() }
    if entries[1].revents != 0 { readGuardian() }
    if entries[0].revents != 0 { answer() }
  }

  /// Ends all that was started, and removes the files.
  private func finish() -> Never {
    if let build { kill(build.process, SIGKILL) }
    for process in processes.keys { kill(process, SIGKILL) }
    for process in processes.keys { _ = waitForEnd(of: process) }
    if let build { _ = waitForEnd(of: build.process) }
    directory.remove()
    _exit(0)
  }

  // MARK: - Requests

  private func answer() {
    guard let request = (try? SocketMessage(from: daemon)) ?? nil else { finish() }
    for descriptor in request.descriptors { try? descriptor.close() }
    var reply: SocketMessage
    do throws(CodeFailure) {
      reply = try answer(to: request.fields)
    } catch {
      reply = SocketMessage(["failed", error.description])
    }
    let isSent = (try? reply.send(to: daemon)) != nil
    for descriptor in reply.descriptors { try? descriptor.close() }
    if !isSent { finish() }
  }

  private func answer(to request: [String]) throws(CodeFailure) -> SocketMessage {
    let words = Array(request.dropFirst())
    switch (request[0], words.count) {
    case ("start", 1):
      guard let kind = CodeKind(rawValue: words[0]) else { break }
      return try start(kind)
    case ("memory", 1):
      guard let size = Int(words[0]), (1...Self.largestTableMemory).contains(size) else { break }
      let memory = clinux_make_memory("virt-walker tables", size)
      guard memory >= 0 else {
        throw CodeFailure("cannot make \(size) bytes of memory for tables: \(Errno.current)")
      }
      return SocketMessage(["memory"], [FileDescriptor(rawValue: memory)])
    case ("end", 1):
      guard let process = pid_t(words[0]), processes[process] != nil else { break }
      return end(process)
    case ("is-stopped", 1):
      guard let process = pid_t(words[0]), processes[process] != nil else { break }
      return SocketMessage(["is-stopped", isStopped(process) ? "1" : "0"])
    case ("places", 2...):
      guard let process = pid_t(words[0]), let program = processes[process] else { break }
      return places(words[1...].prefix(256).compactMap { UInt64($0) }, in: program)
    default: break
    }
    throw CodeFailure("the code builder does not understand the daemon: restart it")
  }

  private func start(_ kind: CodeKind) throws(CodeFailure) -> SocketMessage {
    guard let program = programs[kind] else { throw CodeFailure("there is no \(kind.rawValue)") }
    guard processes.count < Self.mostProcesses else {
      throw CodeFailure("\(processes.count) processes run the code already: start fewer nodes")
    }
    do throws(Errno) {
      let memory = clinux_make_memory("virt-walker channel", Self.channelSize)
      guard memory >= 0 else { throw .current }
      let channel = FileDescriptor(rawValue: memory)
      // The process can look at the version before the daemon has got the memory.
      var version = UInt32(CHANNEL_VERSION)
      pwrite(memory, &version, MemoryLayout<UInt32>.size, 0)
      let (own, codes) = try SocketMessage.makeSockets(SOCK_STREAM)
      defer { try? codes.close() }
      do throws(Errno) {
        let process = try Toolchain.code(
          program.path, isSanitized: configuration.sources.isSanitized, socket: codes,
          memory: channel
        ).start()
        processes[process] = program
        return SocketMessage(["started", "\(process)"], [channel, own])
      } catch {
        try? own.close()
        try? channel.close()
        throw error
      }
    } catch {
      throw CodeFailure("cannot start the \(kind.rawValue)'s process: \(error)")
    }
  }

  private func end(_ process: pid_t) -> SocketMessage {
    // The process is an unreaped child, so its number is not that of another process.
    kill(process, SIGKILL)
    let status = waitForEnd(of: process)
    let program = processes.removeValue(forKey: process)
    if let program { removeUnused(program) }
    let signal = status & 0x7f
    return signal == 0
      ? SocketMessage(["ended", "exit", "\(status >> 8 & 0xff)"])
      : SocketMessage(["ended", "signal", "\(signal)"])
  }

  /// Whether a signal or a debugger has stopped a process.
  private func isStopped(_ process: pid_t) -> Bool {
    ["T", "t"].contains(ProcFile.stat(of: process, field: 3))
  }

  private func places(_ addresses: [UInt64], in program: BuiltProgram) -> SocketMessage {
    var places = [[SourcePlace]](repeating: [], count: addresses.count)
    if let toolchain, let addr2line = toolchain.addr2line, !addresses.isEmpty {
      let result = toolchain.tool(
        addr2line, SymbolPlaces.arguments(program: program.path, addresses), in: directory.path,
        build: directory.path
      ).run()
      places = SymbolPlaces(
        directory: (program.compiledDirectory, program.shownDirectory)
      ).parse(result.output, count: addresses.count)
    }
    var fields = ["places"]
    for list in places {
      fields.append("\(list.count)")
      for place in list {
        fields += [place.function, place.file, "\(place.line)", place.isUsers ? "1" : "0"]
      }
    }
    return SocketMessage(fields)
  }

  // MARK: - Compilations

  private func compilation(of snapshot: SourceSnapshot) -> Compilation {
    builds += 1
    return Compilation(
      sources: configuration.sources, toolchain: toolchain!, directory: directory,
      name: "\(builds)", snapshot: snapshot, runtime: runtime,
      atOnce: max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
  }

  private func kinds(changedIn new: SourceSnapshot) -> [CodeKind] {
    CodeKind.allCases.filter { kind in
      new.codes[kind] != nil
        && (programs[kind] == nil || new.codes[kind] != snapshot.codes[kind]
          || new.kernelVersion != snapshot.kernelVersion)
    }
  }

  private func take(_ new: [BuiltProgram], of snapshot: SourceSnapshot) {
    self.snapshot = snapshot
    for program in new {
      let old = programs[program.kind]
      programs[program.kind] = program
      if let old { removeUnused(old) }
    }
  }

  /// Removes the files of a program that is neither the present one nor that of a process.
  private func removeUnused(_ program: BuiltProgram) {
    guard programs[program.kind] != program, !processes.values.contains(program) else { return }
    // The path is DIRECTORY/NUMBER/KIND/PROGRAM.
    let parts = program.path.dropFirst(directory.path.count + 1).split(separator: "/")
    let (number, kind) = (parts[0], parts[1])
    let path = FilePath("\(directory.path)/\(number)")
    BuildDirectory.remove(String(kind), in: path)
    rmdir(path.string)
  }

  /// Takes the new state of the user's files.
  private func readGuardian() {
    guard let guardian else { return }
    guard let count = read(4, from: guardian)?.reversed().reduce(0, { $0 << 8 | Int($1) }),
      let bytes = read(count, from: guardian), let result = SnapshotBytes.decode(bytes)
    else {
      try? guardian.close()
      self.guardian = nil
      if configuration.sources.isWatched {
        tell("notice", "the process that reads the files was killed: changes are not seen any more")
      }
      return
    }
    switch result {
    case .success(let new):
      next = new
      if build == nil { startBuild() }
    case .failure(let failure): tell("failed", failure.description)
    }
  }

  private func read(_ count: Int, from descriptor: FileDescriptor) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let read = bytes.withUnsafeMutableBytes {
        Glibc.read(descriptor.rawValue, $0.baseAddress! + done, count - done)
      }
      if read < 0 && errno == EINTR { continue }
      guard read > 0 else { return nil }
      done += read
    }
    return bytes
  }

  /// Compiles the next state in a child, while this process answers the daemon.
  private func startBuild() {
    guard let new = next, let sockets = try? SocketMessage.makeSockets() else { return }
    next = nil
    let kinds = kinds(changedIn: new)
    let compilation = compilation(of: new)
    let parent = getpid()
    let child = clinux_fork()
    if child == 0 {
      _ = clinux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
      guard getppid() == parent else { _exit(1) }
      closeDescriptors(but: [sockets.1.rawValue])
      var message: SocketMessage
      do throws(CodeFailure) {
        let output = try compilation.run(kinds)
        message = SocketMessage(
          ["built", output.messages.joined(separator: "\n")]
            + output.programs.flatMap {
              [$0.kind.rawValue, $0.path, $0.compiledDirectory, $0.shownDirectory]
            })
      } catch {
        message = SocketMessage(["failed", error.description])
      }
      try? message.send(to: sockets.1)
      _exit(0)
    }
    try? sockets.1.close()
    guard child > 0 else {
      try? sockets.0.close()
      return tell("failed", "cannot start the compiler: \(Errno.current)")
    }
    build = (child, sockets.0, new, compilation.name)
  }

  private func endBuild() {
    guard let build else { return }
    self.build = nil
    let message = (try? SocketMessage(from: build.result)) ?? nil
    try? build.result.close()
    _ = waitForEnd(of: build.process)
    if let message, message.kind == "built" {
      let fields = Array(message.fields.dropFirst(2))
      let programs = stride(from: 0, to: fields.count - 3, by: 4).compactMap { index in
        CodeKind(rawValue: fields[index]).map {
          BuiltProgram(
            kind: $0, path: fields[index + 1], compiledDirectory: fields[index + 2],
            shownDirectory: fields[index + 3])
        }
      }
      take(programs, of: build.snapshot)
      tell("built", message.fields[1])
    } else {
      BuildDirectory.remove(build.name, in: FilePath(directory.path))
      tell("failed", message?.fields.last ?? "the compiler has ended early")
    }
    if next != nil { startBuild() }
  }

  /// Tells the daemon of an event.
  private func tell(_ kind: String, _ text: String) {
    try? SocketMessage([kind, text]).send(to: events)
  }
}
