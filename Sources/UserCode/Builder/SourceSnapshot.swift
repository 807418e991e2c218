import CharacterDeviceServer
import Glibc
import SystemPackage

/// The files of a user's code at one time.
struct SourceSnapshot: Equatable {
  struct File: Equatable {
    /// The path in the directory of the code, without `..`.
    var name: String
    var bytes: [UInt8]
  }

  /// The files of one kind of code.
  struct Code: Equatable {
    var files: [File] = []
    /// The names of the C files to compile.
    var sources: [String] = []
    /// A diff to apply to the files; nil if there is none.
    var patch: [UInt8]?
    /// The directory from which the files come, as the user has given it and as an absolute path, both with a slash at the end, or empty.
    var givenDirectory = ""
    var absoluteDirectory = ""
    /// Remarks for the user about files that are not compiled.
    var notes: [String] = []
  }

  var codes: [CodeKind: Code] = [:]
  /// The version of the kernel's tree: `VERSION.PATCHLEVEL`; nil if none was named.
  var kernelVersion: String?
}

// MARK: - As bytes

/// The bytes of a snapshot, or of the reason why there is none, for the way from the reader to the builder.
struct SnapshotBytes {
  static func encode(_ result: Result<SourceSnapshot, CodeFailure>) -> [UInt8] {
    var writer = Writer()
    switch result {
    case .failure(let failure):
      writer.add(0)
      writer.add(failure.description)
    case .success(let snapshot):
      writer.add(1)
      writer.add(snapshot.kernelVersion ?? "")
      writer.add(snapshot.codes.count)
      for (kind, code) in snapshot.codes {
        writer.add(kind.rawValue)
        writer.add(code.files.count)
        for file in code.files {
          writer.add(file.name)
          writer.add(file.bytes)
        }
        for list in [code.sources, code.notes] {
          writer.add(list.count)
          for text in list { writer.add(text) }
        }
        writer.add(code.patch == nil ? 0 : 1)
        writer.add(code.patch ?? [])
        writer.add(code.givenDirectory)
        writer.add(code.absoluteDirectory)
      }
    }
    return writer.bytes
  }

  static func decode(_ bytes: [UInt8]) -> Result<SourceSnapshot, CodeFailure>? {
    var reader = Reader(rest: bytes[...])
    return try? reader.snapshot()
  }

  private struct Writer {
    var bytes: [UInt8] = []

    mutating func add(_ number: Int) {
      withUnsafeBytes(of: UInt32(number).littleEndian) { bytes += $0 }
    }

    mutating func add(_ content: [UInt8]) {
      add(content.count)
      bytes += content
    }

    mutating func add(_ text: String) { add(Array(text.utf8)) }
  }

  private struct Reader {
    struct Malformed: Error {}
    var rest: ArraySlice<UInt8>

    mutating func number() throws -> Int {
      guard rest.count >= 4 else { throw Malformed() }
      defer { rest = rest.dropFirst(4) }
      return rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    mutating func content() throws -> [UInt8] {
      let count = try number()
      guard count <= rest.count else { throw Malformed() }
      defer { rest = rest.dropFirst(count) }
      return Array(rest.prefix(count))
    }

    mutating func text() throws -> String { String(decoding: try content(), as: UTF8.self) }

    mutating func texts() throws -> [String] {
      let count = try number()
      guard count <= rest.count else { throw Malformed() }
      return try (0..<count).map { _ in try text() }
    }

    mutating func snapshot() throws -> Result<SourceSnapshot, CodeFailure> {
      guard try number() == 1 else { return .failure(CodeFailure(try text())) }
      var snapshot = SourceSnapshot()
      let version = try text()
      snapshot.kernelVersion = version.isEmpty ? nil : version
      for _ in 0..<(try number()) {
        guard let kind = CodeKind(rawValue: try text()) else { throw Malformed() }
        var code = SourceSnapshot.Code()
        for _ in 0..<(try number()) {
          code.files.append(.init(name: try text(), bytes: try content()))
        }
        code.sources = try texts()
        code.notes = try texts()
        let hasPatch = try number() == 1
        let patch = try content()
        code.patch = hasPatch ? patch : nil
        code.givenDirectory = try text()
        code.absoluteDirectory = try text()
        snapshot.codes[kind] = code
      }
      return .success(snapshot)
    }
  }
}
