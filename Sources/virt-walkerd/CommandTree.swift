import ArgumentParser
import CharacterDeviceServer
import Glibc
import Inspection
import Logging
import SystemPackage

/// The inspection tree of the machine of `exec`: a directory with --tree, otherwise a socket.
final class CommandTree {
  /// The server of the directory; nil if there is none.
  private(set) var directory: FileTreeServer?
  private var socket: FileTreeSocketServer?
  private var keeper: Keeper?
  private var followers: Followers?
  private let log: Logger

  /// Makes the tree, and names it in the environment of the command. Call this before the command is started.
  init(
    of device: InspectedDevice, _ node: FilePath, _ options: Serve, _ log: Logger
  ) throws {
    self.log = log
    switch options.inspection.tree {
    case .some(.none): unsetenv(ExecSocket.variable)
    case .directory(let given):
      let path = try given.inResolvedDirectory(
        advice: "choose a tree in a directory that exists: --tree DIR")
      guard node.removingLastComponent() != path else {
        throw Failure(
          "\(node) would be in the tree \(path): give --path FILE in another directory",
          status: .validationFailure)
      }
      directory = try mount(device.tree, at: path, options)
      setenv(ExecSocket.variable, path.string, 1)
    case nil:
      let name = FileTreeSocketServer.makeName(prefix: ExecSocket.prefix)
      socket = try FileTreeSocketServer(
        device.tree, name: name,
        description: ExecSocket.description(node: node, machine: options.machine.summary))
      setenv(ExecSocket.variable, "@\(name)", 1)
    }
  }

  private func mount(
    _ tree: FileTree, at path: FilePath, _ options: Serve
  ) throws -> FileTreeServer {
    let server: FileTreeServer
    do throws(NodeError) {
      try FileTreeServer.removeStale(at: path, of: Instance.application)
      server = try FileTreeServer(
        tree, at: path,
        access: NodeAccess(
          mode: options.inspection.treeMode, owner: options.access.owner,
          group: options.access.group),
        application: Instance.application)
    } catch {
      throw Failure(
        "\(error): without --tree, virt-walkerd tree shows the files without a mount",
        status: Failure(error).status)
    }
    do {
      keeper = try Keeper(
        name: "walkerd-keeper", keeping: server.removalDescriptors, unmounts: true,
        cleanUp: server.remove)
    } catch {
      server.close()
      throw error
    }
    return server
  }

  /// Answers the requests for the files.
  func serve(in loop: EventLoop) throws {
    if let socket { try loop.add(socket.descriptor) { socket.process() } }
    guard let directory else { return }
    followers = try Followers(of: [directory], loop)
    try loop.add(directory.descriptor) { [self] in
      guard let result = try? directory.process(), result != .end else {
        return directory.drop(from: loop, log, "the command goes on")
      }
      noteNews()
    }
    try loop.add(directory.workDescriptor) { [self] in
      directory.proceed()
      noteNews()
    }
  }

  /// Tells the readers of the tree's pipes that the machine may have new events.
  func noteNews() { followers?.noteNews(of: directory) }

  /// Removes the directory.
  func end() {
    directory?.disconnect()
    keeper?.finish()
  }
}
