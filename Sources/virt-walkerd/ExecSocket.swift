import CharacterDeviceServer
import Glibc
import SystemPackage

/// The socket of a running `exec`, which gives the files of the inspection tree to programs of the same user.
struct ExecSocket {
  /// The variable of the environment that names the tree for the command of `exec`: @ and a name, or a directory.
  static let variable = "VIRT_WALKERD_TREE"
  /// The beginning of the names of the sockets.
  static let prefix = "virt-walkerd-exec-"

  let name: String
  let client: FileTreeClient
  let node: FilePath
  let machine: String
  /// The process of `exec`.
  let process: String

  /// The texts by which ``init(_:)`` describes a machine.
  static func description(node: FilePath, machine: String) -> [String] {
    [node.string, machine, "\(getpid())"]
  }

  /// Connects to a socket.
  init(_ name: String) throws {
    self.name = name
    do throws(Errno) {
      client = try FileTreeClient(name: name)
      let description = try client.description()
      guard description.count == 3 else { throw .ioError }
      node = FilePath(description[0])
      machine = description[1]
      process = description[2]
    } catch {
      let reason =
        error == .permissionDenied
        ? "it belongs to another user: run as that user" : "the command of exec has ended"
      throw Failure(
        "cannot use the socket @\(name): \(error): \(reason)",
        status: error == .permissionDenied ? .noPermission : .unavailable)
    }
  }

  /// The sockets of this user.
  static func all() -> [ExecSocket] {
    FileTreeClient.names(prefix: prefix).compactMap { try? ExecSocket($0) }
      .sorted { $0.process < $1.process }
  }
}
