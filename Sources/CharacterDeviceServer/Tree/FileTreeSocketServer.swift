import CLinux
import Glibc
import SystemPackage

/// A server of a ``FileTree`` at a socket, for machines without FUSE. Only processes of the same user get answers.
///
/// The socket is in the abstract namespace of unix(7): it has no file, and nothing is left of it when this process has ended in any way.
/// A ``FileTreeClient`` is the other end.
public final class FileTreeSocketServer {
  /// The name of the socket.
  public let name: String
  /// The set of epoll(7) with all descriptors of the server.
  public let descriptor: FileDescriptor

  private let tree: FileTree
  private let texts: [String]
  private let listener: OwnedDescriptor
  private let timer: DelayTimer
  private var connections: [Int32: Connection] = [:]
  /// The work that clients have asked for, in the order in which it is done.
  private var works: [(work: any CommandWork, client: Connection?)] = []
  /// The first of ``works`` waits for an event outside.
  private var isWaiting = false

  /// The most clients at the same time.
  private static let mostConnections = 64

  /// A client, with the files that it has used.
  private final class Connection {
    let socket: OwnedDescriptor
    var readers: [String: any GrowingTextReader] = [:]
    var writers: [String: any CommandWriter] = [:]

    init(_ socket: OwnedDescriptor) { self.socket = socket }
  }

  /// Makes a name that no other server has.
  ///
  /// - Parameter prefix: The beginning of the name, by which clients find the server.
  public static func makeName(prefix: String) -> String {
    prefix + String(UInt64.random(in: .min ... .max), radix: 36)
  }

  /// - Parameters:
  ///   - tree: A directory.
  ///   - name: A result of ``makeName(prefix:)``.
  ///   - description: Texts for clients, such as the name of the device.
  public init(_ tree: FileTree, name: String, description: [String]) throws(Errno) {
    self.tree = tree
    texts = description
    self.name = name
    let socket = clinux_abstract_socket(name, 1)
    guard socket >= 0 else { throw .current }
    listener = OwnedDescriptor(FileDescriptor(rawValue: socket))
    timer = try DelayTimer()
    let set = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard set >= 0 else { throw .current }
    descriptor = FileDescriptor(rawValue: set)
    try watch(listener.descriptor)
    try watch(timer.descriptor)
  }

  deinit { try? descriptor.close() }

  private func watch(
    _ watched: FileDescriptor, _ operation: Int32 = EPOLL_CTL_ADD,
    _ events: UInt32 = EPOLLIN.rawValue
  ) throws(Errno) {
    var event = epoll_event()
    event.events = events
    event.data.fd = watched.rawValue
    guard epoll_ctl(descriptor.rawValue, operation, watched.rawValue, &event) == 0 else {
      throw .current
    }
  }

  /// Answers one request, or does a part of the work that takes long. Call this when ``descriptor`` is readable.
  public func process() {
    var event = epoll_event()
    guard epoll_wait(descriptor.rawValue, &event, 1, 0) == 1 else { return }
    switch event.data.fd {
    case listener.descriptor.rawValue: accept()
    case timer.descriptor.rawValue: proceed()
    case let number:
      guard let connection = connections[number] else { return }
      // While a client waits for its work, only its end is an event.
      guard event.events & EPOLLIN.rawValue != 0, !hasWork(connection),
        let request = try? SocketMessage(from: connection.socket.descriptor)
      else { return close(connection) }
      for descriptor in request.descriptors { try? descriptor.close() }
      answer(request, of: connection)
    }
  }

  private func accept() {
    let socket = clinux_accept(listener.descriptor.rawValue)
    guard socket >= 0 else { return }
    let connection = Connection(OwnedDescriptor(FileDescriptor(rawValue: socket)))
    guard clinux_peer_user(socket) == Int64(geteuid()) else {
      return send(.failure(.permissionDenied), to: connection)
    }
    guard connections.count < Self.mostConnections else {
      return send(.failure(.tooManyOpenFilesInSystem), to: connection)
    }
    guard (try? watch(connection.socket.descriptor)) != nil else { return }
    connections[socket] = connection
  }

  private func close(_ connection: Connection) {
    connections[connection.socket.descriptor.rawValue] = nil
    if let index = works.firstIndex(where: { $0.client === connection }) {
      let work = works.remove(at: index).work
      work.onReady = nil
      if index == 0, isWaiting {
        isWaiting = false
        timer.start(milliseconds: 0)
      }
      work.interrupt()
    }
    for writer in connection.writers.values {
      if let rest = writer.finish() { begin(rest, for: nil) }
    }
  }

  // MARK: - Requests

  private func answer(_ request: SocketMessage, of connection: Connection) {
    do throws(Errno) {
      let fields = request.fields
      switch (fields[0], fields.count) {
      case ("describe", 1): send(.success(SocketMessage(["ok"] + texts)), to: connection)
      case ("list", 1): send(.success(SocketMessage(["ok"] + names(of: tree))), to: connection)
      case ("read", 2): send(.success(try read(fields[1], of: connection)), to: connection)
      case ("write", 3): try write(fields[2], to: fields[1], of: connection)
      default: throw .invalidArgument
      }
    } catch {
      send(.failure(error), to: connection)
    }
  }

  private func send(_ answer: Result<SocketMessage, Errno>, to connection: Connection) {
    let message =
      switch answer {
      case .success(let message): message
      case .failure(let error): SocketMessage(["error", "\(error.rawValue)"])
      }
    defer { for descriptor in message.descriptors { try? descriptor.close() } }
    // The socket takes the answer at once, because a client sends a request after the answer to its last one.
    if (try? message.send(to: connection.socket.descriptor)) == nil { close(connection) }
  }

  /// The paths of the files.
  private func names(of tree: FileTree, below path: String = "") -> [String] {
    guard case .directory(let entries) = tree else { return [path] }
    return entries.flatMap {
      names(of: $0.value, below: path.isEmpty ? $0.key : "\(path)/\($0.key)")
    }
  }

  private func file(_ path: String) throws(Errno) -> FileTree {
    var file = tree
    for name in path.split(separator: "/", omittingEmptySubsequences: false) {
      guard case .directory(let entries) = file else { throw .notDirectory }
      guard let entry = entries.first(where: { $0.key == name }) else {
        throw .noSuchFileOrDirectory
      }
      file = entry.value
    }
    return file
  }

  /// The text of a file goes by memory, because it can be longer than a message. A pipe has the text since the last request of the client.
  private func read(_ path: String, of connection: Connection) throws(Errno) -> SocketMessage {
    let bytes: [UInt8]
    switch try file(path) {
    case .directory: throw .isDirectory
    case .text(let read, _), .commands(let read?, _): bytes = read().bytes()
    case .commands: throw .permissionDenied
    case .pipe(let text):
      let reader = connection.readers[path] ?? text.makeReader()
      connection.readers[path] = reader
      bytes = reader.next()
    }
    let memory = clinux_make_memory("text", off_t(bytes.count))
    guard memory >= 0 else { throw .current }
    let descriptor = FileDescriptor(rawValue: memory)
    guard (try? descriptor.writeAll(toAbsoluteOffset: 0, bytes)) != nil else {
      try? descriptor.close()
      throw .noMemory
    }
    return SocketMessage(["ok"], [descriptor])
  }

  private func write(_ text: String, to path: String, of connection: Connection) throws(Errno) {
    guard case .commands(_, let makeWriter) = try file(path) else { throw .permissionDenied }
    let writer = connection.writers[path] ?? makeWriter()
    connection.writers[path] = writer
    guard let work = try writer.write(Array(text.utf8).span) else {
      return send(.success(SocketMessage(["ok"])), to: connection)
    }
    begin(work, for: connection)
  }

  // MARK: - Work

  private func hasWork(_ connection: Connection) -> Bool {
    works.contains { $0.client === connection }
  }

  private func begin(_ work: any CommandWork, for client: Connection?) {
    works.append((work, client))
    if let client { try? watch(client.socket.descriptor, EPOLL_CTL_MOD, 0) }
    timer.start(milliseconds: 0)
  }

  private func proceed() {
    timer.finish()
    guard let (work, client) = works.first, !isWaiting else { return }
    let progress = work.proceed()
    switch progress {
    case .unfinished: return timer.start(milliseconds: 0)
    case .waiting:
      isWaiting = true
      work.onReady = { [weak self] in
        self?.isWaiting = false
        self?.timer.start(milliseconds: 0)
      }
      return
    case .finished, .failed: works.removeFirst()
    }
    if !works.isEmpty { timer.start(milliseconds: 0) }
    guard let client else { return }
    try? watch(client.socket.descriptor, EPOLL_CTL_MOD)
    if case .failed(let error) = progress {
      send(.failure(error), to: client)
    } else {
      send(.success(SocketMessage(["ok"])), to: client)
    }
  }
}
