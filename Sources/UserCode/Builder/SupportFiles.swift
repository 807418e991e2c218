import Glibc
import SystemPackage

/// The files that virt-walker has for the compilation of a user's code.
package struct SupportFiles {
  /// The headers, the C files and the options of the runtime, by their paths in the directory.
  let files: [SourceSnapshot.File]
  /// The objects that Kernel/build-runtime has made of these files: `start.o` and so on. Empty if there are none, or if they are of
  /// other files.
  let objects: [SourceSnapshot.File]

  /// The version for which Kernel/build-runtime makes objects.
  static let version = "6.1"

  /// The directories of these files.
  package struct Place: Equatable {
    /// The directory with `include` and `runtime`.
    package var directory: FilePath
    /// The directory with the objects of the runtime. It does not have to exist.
    var objects: FilePath

    /// The place for the running program.
    package static func find() throws(CodeFailure) -> Place {
      var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
      _ = readlink("/proc/self/exe", &text, text.count - 1)
      return try find(for: FilePath(platformString: text))
    }

    /// The place for a program at a path: beside it, that of an installed package, or that of the checkout in which it was built.
    static func find(for program: FilePath) throws(CodeFailure) -> Place {
      var directory = program.removingLastComponent()
      let beside = directory.appending("kernel")
      if has(beside) { return Place(directory: beside, objects: beside.appending("objects")) }
      let prefix = directory.removingLastComponent()
      let installed = prefix.appending("share/virt-walker/kernel")
      if has(installed) {
        return Place(directory: installed, objects: prefix.appending("lib/virt-walker/objects"))
      }
      while true {
        let kernel = directory.appending("Kernel")
        if has(kernel) {
          return Place(directory: kernel, objects: directory.appending(".build/kernel-objects"))
        }
        let parent = directory.removingLastComponent()
        guard parent != directory, !directory.isEmpty else { break }
        directory = parent
      }
      throw CodeFailure(
        "the headers for a user's code are missing: they are neither in \(beside), nor in \(installed), nor in a directory Kernel above \(program): install the package virt-walker, or copy the directory Kernel of the source to \(beside)"
      )
    }

    private static func has(_ directory: FilePath) -> Bool {
      access(directory.appending("runtime/channel.h").string, R_OK) == 0
    }
  }

  /// Reads the files of a place, and its objects for the code with or without sanitizers.
  init(at place: Place, isSanitized: Bool) throws(CodeFailure) {
    let files = ["include", "runtime"].flatMap { Self.read($0, in: place.directory) }
    guard !files.isEmpty else {
      throw CodeFailure("\(place.directory) cannot be read: make it readable for you")
    }
    self.files = files
    let stamp = Self.content(of: place.objects.appending("stamp"))
    objects =
      stamp == Array("\(RuntimeStamp(files))\n".utf8)
      ? Self.objects(in: place.objects.appending(isSanitized ? "sanitize" : "plain")) : []
  }

  /// All headers and C files beneath `path`, and the options.
  private static func read(_ path: String, in directory: FilePath) -> [SourceSnapshot.File] {
    names(in: directory.appending(path)).flatMap { name -> [SourceSnapshot.File] in
      let inner = "\(path)/\(name)"
      let isFile = [".h", ".c", ".S"].contains { name.hasSuffix($0) } || name == "flags"
      guard isFile else { return read(inner, in: directory) }
      return content(of: directory.appending(inner)).map { [.init(name: inner, bytes: $0)] } ?? []
    }
  }

  private static func objects(in directory: FilePath) -> [SourceSnapshot.File] {
    names(in: directory).compactMap { name in
      guard name.hasSuffix(".o") else { return nil }
      return content(of: directory.appending(name)).map { .init(name: name, bytes: $0) }
    }
  }

  /// The names in a directory, without those that begin with a dot; none if it is not a directory.
  private static func names(in directory: FilePath) -> [String] {
    guard let stream = opendir(directory.string) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names
  }

  private static func content(of path: FilePath) -> [UInt8]? {
    guard let file = try? FileDescriptor.open(path, .readOnly, options: .closeOnExec) else {
      return nil
    }
    defer { try? file.close() }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      guard let count = try? buffer.withUnsafeMutableBytes({ try file.read(into: $0) }) else {
        return nil
      }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
  }
}

/// The options of the compiler in the file Kernel/runtime/flags, which Kernel/build-runtime reads, too.
struct RuntimeFlags {
  /// The files that have an option.
  enum Files { case all, runtime }

  private var lines: [Files: [String]] = [:]

  #if arch(arm64)
    static let machine = "aarch64"
  #else
    static let machine = "x86_64"
  #endif

  init(_ text: String, compiler: String, machine: String = Self.machine) {
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1).map(String.init)
      guard words.count == 2 else { continue }
      let files = words[0].split(separator: "/")
      guard files.count == 1 || files.last.map(String.init) == compiler else { continue }
      switch String(files[0]) {
      case "all", machine: lines[.all, default: []].append(words[1])
      case "runtime": lines[.runtime, default: []].append(words[1])
      default: break
      }
    }
  }

  /// The options in the file of the support files.
  init(in files: [SourceSnapshot.File], compiler: String) throws(CodeFailure) {
    guard let file = files.first(where: { $0.name == "runtime/flags" }) else {
      throw CodeFailure(
        "the file runtime/flags is missing beside the headers for a user's code: install virt-walker again"
      )
    }
    self.init(String(decoding: file.bytes, as: UTF8.self), compiler: compiler)
  }

  /// The options, for the directory `kernel` of the support files.
  func options(_ files: Files, kernel: String) -> [String] {
    (lines[files] ?? []).map { option in
      let parts = option.split(separator: "@kernel@", omittingEmptySubsequences: false)
      return parts.joined(separator: kernel)
    }
  }
}

/// The mark of the files from which Kernel/build-runtime has made objects: the machine, and the checksum and the size that cksum prints.
struct RuntimeStamp: CustomStringConvertible {
  let description: String

  init(_ files: [SourceSnapshot.File], machine: String = RuntimeFlags.machine) {
    var sum = Checksum()
    for file in files.sorted(by: { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }) {
      sum.add(Array("\(file.name)\n".utf8))
      sum.add(file.bytes)
    }
    description = "\(machine) \(sum.value) \(sum.size)"
  }

  /// The checksum of POSIX's cksum.
  struct Checksum {
    private var remainder: UInt32 = 0
    private(set) var size = 0

    private static let table: [UInt32] = (0..<256).map { byte in
      (0..<8).reduce(UInt32(byte) << 24) { value, _ in
        value & 0x8000_0000 == 0 ? value << 1 : value << 1 ^ 0x04c1_1db7
      }
    }

    private func next(_ remainder: UInt32, _ byte: UInt8, _ table: UnsafeBufferPointer<UInt32>)
      -> UInt32
    {
      remainder << 8 ^ table[Int(UInt8(truncatingIfNeeded: remainder >> 24) ^ byte)]
    }

    mutating func add(_ bytes: [UInt8]) {
      size += bytes.count
      remainder = Self.table.withUnsafeBufferPointer { table in
        bytes.reduce(remainder) { next($0, $1, table) }
      }
    }

    /// The checksum of all bytes. The last bytes are those of the size, the lowest first.
    var value: UInt32 {
      Self.table.withUnsafeBufferPointer { table in
        var value = remainder
        var rest = size
        while rest > 0 {
          value = next(value, UInt8(truncatingIfNeeded: rest), table)
          rest >>= 8
        }
        return ~value
      }
    }
  }
}
