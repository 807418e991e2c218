import ArgumentParser
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

/// The options that select the inspection tree of a machine that runs.
struct RunningTreeOptions: ParsableArguments {
  @OptionGroup var node: NodeOptions

  @Option(
    help: ArgumentHelp(
      "The directory of the inspection tree, or @NAME for the socket of exec. (default: the tree of the node; within exec, the tree of its machine)",
      valueName: "dir"))
  var tree: String?

  func validate() throws {
    guard tree == nil || !node.isGiven else {
      throw ValidationError("--tree names the tree, --name and --path its node: give one of them")
    }
    guard tree?.isEmpty != true else { throw ValidationError("an empty name is not a directory") }
  }

  /// Finds the tree.
  func find() throws -> RunningTree {
    if let tree { return try RunningTree(named: tree) }
    if !node.isGiven, let name = getenv(ExecSocket.variable).map({ String(cString: $0) }) {
      return try RunningTree(named: name)
    }
    let node = try node.node
    if let found = try RuntimeRecord.find(node), !found.hasEnded {
      guard let tree = found.record.tree else {
        throw Failure(
          "\(node) has no inspection tree: start its daemon again with --tree DIR",
          status: .unavailable)
      }
      return RunningTree(tree, found.record)
    }
    let sockets = ExecSocket.all().filter { $0.node == node }
    guard let socket = sockets.first else {
      throw Failure(
        "nothing serves \(node): virt-walkerd status lists the daemons", status: .unavailable)
    }
    guard sockets.count == 1 else {
      let names = sockets.map { "--tree @\($0.name) (pid \($0.process))" }
      throw Failure(
        "several commands of exec have \(node): give one of \(names.joined(separator: ", "))",
        status: .unavailable)
    }
    return RunningTree(socket)
  }
}

/// The inspection tree of a machine that runs: a directory, or the socket of `exec`.
struct RunningTree {
  enum Place {
    case directory(FilePath)
    case socket(FileTreeClient)
  }

  let place: Place
  /// The node, or the tree of an unknown node, for messages.
  let subject: String
  /// The machine in words; nil if it is not known.
  let machine: String?

  private init(place: Place, subject: String, machine: String?) {
    self.place = place
    self.subject = subject
    self.machine = machine
  }

  init(_ tree: FilePath, _ record: RuntimeRecord) {
    self.init(place: .directory(tree), subject: record.node.string, machine: record.machine)
  }

  init(_ socket: ExecSocket) {
    self.init(
      place: .socket(socket.client), subject: socket.node.string, machine: socket.machine)
  }

  /// - Parameter name: A directory, or @ and the name of a socket.
  init(named name: String) throws {
    guard !name.hasPrefix("@") else {
      self.init(try ExecSocket(String(name.dropFirst())))
      return
    }
    let path = realpath(name, nil).map { resolved in
      defer { free(resolved) }
      return FilePath(platformString: resolved)
    }
    let found = try RuntimeRecord.all().first { !$0.hasEnded && $0.record.tree == path }
    let directory = path ?? FilePath(name)
    self.init(
      place: .directory(directory), subject: (found?.record.node ?? directory).string,
      machine: found?.record.machine)
  }

  /// The node and the machine.
  var title: String { machine.map { "\(subject): \($0)" } ?? subject }

  /// The paths of the files.
  func list() throws -> [String] {
    switch place {
    case .socket(let client): try client.list()
    case .directory(let path): try Self.names(in: path).sorted()
    }
  }

  private static func names(in directory: FilePath, below prefix: String = "") throws -> [String] {
    guard let stream = opendir(directory.string) else {
      throw directory.failureOfOpen(.current)
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard name != ".", name != ".." else { continue }
      if entry.pointee.d_type == UInt8(DT_DIR) {
        names += try Self.names(in: directory.appending(name), below: "\(prefix)\(name)/")
      } else {
        names.append(prefix + name)
      }
    }
    return names
  }

  /// The text of a file.
  func text(of file: String) throws -> String {
    switch place {
    case .socket(let client):
      do throws(Errno) {
        return try client.read(file)
      } catch {
        throw failure(error, doing: "read", file)
      }
    case .directory(let path):
      let descriptor = try path.openTreeFile(file)
      defer { try? descriptor.close() }
      var bytes: [UInt8] = []
      var part = [UInt8](repeating: 0, count: 1 << 16)
      do {
        while case let count = try part.withUnsafeMutableBytes({ try descriptor.read(into: $0) }),
          count > 0
        {
          bytes += part[..<count]
        }
      } catch Errno.resourceTemporarilyUnavailable {
        // A pipe has no more text at the moment.
      } catch {
        throw failure(error as? Errno ?? .ioError, doing: "read", file)
      }
      return String(decoding: bytes, as: UTF8.self)
    }
  }

  /// Writes to a file by one write(2), and waits until its commands are performed.
  func write(_ text: String, to file: String) throws {
    do {
      switch place {
      case .socket(let client): try client.write(text, to: file)
      case .directory(let path):
        let descriptor = try path.openTreeFile(file, .writeOnly, options: [.closeOnExec])
        defer { try? descriptor.close() }
        _ = try Array(text.utf8).withUnsafeBytes { try descriptor.write($0) }
      }
    } catch let error as Errno {
      throw failure(error, doing: "write", file)
    }
  }

  private func failure(_ error: Errno, doing action: String, _ file: String) -> Failure {
    let advice =
      switch error {
      case .noSuchFileOrDirectory, .isDirectory, .notDirectory: "virt-walkerd tree lists the files"
      case .invalidArgument where action == "write":
        "virt-walkerd tree \(file) says why, if the file can be read; see docs/inspection.md"
      case .brokenPipe, .connectionReset, .socketNotConnected: "its daemon or command has ended"
      case .permissionDenied: "the file cannot be \(action == "read" ? "read" : "written")"
      default: "virt-walkerd status lists the daemons"
      }
    return Failure(
      "cannot \(action) \(file) of \(subject): \(error): \(advice)",
      status: error == .invalidArgument ? .dataError : .noInput)
  }
}
