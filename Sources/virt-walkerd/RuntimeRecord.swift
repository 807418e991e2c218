import CharacterDeviceServer
import Glibc
import SystemPackage

/// The description of a running daemon in a file, by which `status`, `stop` and `watch` find the daemon.
///
/// The daemon writes the file while it still has the rights of the user who started it. An attacker who takes over the
/// server later has no descriptor to change the file.
struct RuntimeRecord {
  var node: FilePath
  var backend: String
  var machine: String
  /// The directory of the inspection tree; nil if there is none.
  var tree: FilePath?
  /// The files of the user's own code; nil if there is none.
  var code: String?
  var process: ServerProcess

  /// `key=value` lines, for people and scripts.
  var text: String {
    var fields = [("node", node.string), ("backend", backend), ("machine", machine)]
    if let tree { fields.append(("tree", tree.string)) }
    if let code { fields.append(("code", code)) }
    fields += process.fields.map { ($0.key, $0.value) }
    return fields.map { "\($0)=\(Self.escaped($1))\n" }.joined()
  }

  init(
    node: FilePath, backend: String, machine: String, tree: FilePath?, code: String?,
    process: ServerProcess
  ) {
    self.node = node
    self.backend = backend
    self.machine = machine
    self.tree = tree
    self.code = code
    self.process = process
  }

  private init?(parsing text: String) {
    var values: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      let pair = line.split(separator: "=", maxSplits: 1)
      if pair.count == 2 { values[pair[0]] = pair[1] }
    }
    func value(_ key: String) -> String? { values[key[...]].map(Self.unescaped) }
    guard let node = value("node"), let process = ServerProcess(value) else { return nil }
    self.init(
      node: FilePath(node), backend: value("backend") ?? "?", machine: value("machine") ?? "?",
      tree: value("tree").map { FilePath($0) }, code: value("code"), process: process)
  }

  /// The record at `entry`; nil if there is no file, or if the file is not a record.
  init?(_ entry: DirectoryEntry, owner: uid_t) {
    guard let file = try? entry.openRegularFile(O_RDONLY),
      let attributes = try? file.descriptor.attributes(), attributes.st_uid == owner
    else { return nil }
    // Four paths of at most 4096 bytes, each byte escaped.
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    let count = try? bytes.withUnsafeMutableBytes { try file.descriptor.read(into: $0) }
    self.init(parsing: String(decoding: bytes.prefix(count ?? 0), as: UTF8.self))
  }

  /// A record, and the state of its daemon.
  struct Found {
    let record: RuntimeRecord
    let state: ServerProcess.State

    init(_ record: RuntimeRecord) {
      self.record = record
      state = record.process.find()
    }

    var hasEnded: Bool { if case .ended = state { true } else { false } }
  }

  /// The records of root's daemons and of the caller's own, by node.
  static func all() throws -> [Found] {
    var found = try records(in: RuntimeDirectory.own)
    if RuntimeDirectory.own != RuntimeDirectory.system {
      // Another user cannot repair root's directory, so its errors are ignored.
      found += (try? records(in: RuntimeDirectory.system)) ?? []
    }
    return found.sorted { $0.record.node.string < $1.record.node.string }
  }

  private static func records(in path: FilePath) throws -> [Found] {
    guard let directory = try RuntimeDirectory.records(in: path) else { return [] }
    let owner = try directory.descriptor.attributes().st_uid
    guard let stream = fdopendir(dup(directory.descriptor.rawValue)) else { return [] }
    defer { closedir(stream) }
    var found: [Found] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard !name.hasPrefix("."),
        let record = RuntimeRecord(DirectoryEntry(name, in: directory), owner: owner)
      else { continue }
      found.append(Found(record))
    }
    return found
  }

  /// The record of the daemon that serves `node`, or that was killed while it served `node`.
  static func find(_ node: FilePath) throws -> Found? {
    try all().first { $0.record.node == node }
  }

  /// The record of the daemon that serves `node` now.
  static func running(at node: FilePath) throws -> Found {
    guard let found = try find(node), !found.hasEnded else {
      throw Failure(
        "nothing serves \(node): virt-walkerd status lists the daemons", status: .unavailable)
    }
    return found
  }

  // MARK: - Names and values

  /// The name of the record of `node`: one path component, different for each path, and without a leading dot.
  static func name(of node: FilePath) -> String {
    let name = escaped(String(node.string.dropFirst()), besides: "/")
    return name.hasPrefix(".") ? "%2E\(name.dropFirst())" : name
  }

  /// The text with `%` and two hexadecimal digits for each control character, each `%`, and each of `others`, so that a
  /// value cannot look like another line.
  private static func escaped(_ text: String, besides others: String = "") -> String {
    String(
      decoding: text.utf8.flatMap { byte -> [UInt8] in
        guard byte < 0x20 || byte == 0x7f || byte == UInt8(ascii: "%") || others.utf8.contains(byte)
        else { return [byte] }
        let digits = String(byte, radix: 16, uppercase: true)
        return Array("%\(digits.count < 2 ? "0" : "")\(digits)".utf8)
      }, as: UTF8.self)
  }

  private static func unescaped(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"),
        let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
