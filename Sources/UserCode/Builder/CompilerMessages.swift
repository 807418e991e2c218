import Scenarios

/// The messages of a compiler, an assembler and a linker about a user's code: with the paths of the user, and with advice.
struct CompilerMessages {
  /// The directories whose files the messages name, and what the user sees instead, each with a slash at its end.
  let directories: [(compiled: String, shown: String)]
  /// The names of the user's files, which the compiler gets as relative paths.
  let names: Set<String>
  /// The text that the user sees before such a name.
  let shownDirectory: String

  private static let mostLines = 60
  private static let longestLine = 400
  private static let mostAdvice = 5

  init(
    of code: SourceSnapshot.Code, directories: [(compiled: String, shown: String)] = []
  ) {
    self.directories =
      directories
      + (code.absoluteDirectory.isEmpty ? [] : [(code.absoluteDirectory, code.givenDirectory)])
    names = Set(code.files.map(\.name))
    shownDirectory = code.givenDirectory
  }

  /// The lines of the tools, in bounds and without control characters.
  func lines(of output: String) -> [String] {
    var all: [String] = []
    // The file that includes a hook is not the user's, and its lines in a message are not either.
    var isOurs = false
    for line in output.split(separator: "\n").map(String.init) {
      if line.contains("/\(Toolchain.hookSource):") {
        isOurs = true
        if let problem = problemOfHookFunction(line) { all.append(problem) }
        continue
      }
      isOurs = isOurs && !isHead(line)
      guard !isOurs else { continue }
      let shown = show(line)
      // A file that includes itself has the same line 200 times.
      if shown != all.last { all.append(shown) }
    }
    let more = all.count - Self.mostLines
    guard more > 0 else { return all }
    return all.prefix(Self.mostLines / 2) + ["(\(more) more lines)"]
      + all.suffix(Self.mostLines / 2)
  }

  /// Whether a line begins a message. The other lines of a message show the source.
  private func isHead(_ line: String) -> Bool {
    !line.hasPrefix(" ")
      && ["error: ", "warning: ", "note: ", "In file ", "In function "].contains {
        line.contains($0)
      }
  }

  /// The problem of the function of `--hook-function`, from an error of the file that includes the hook.
  private func problemOfHookFunction(_ line: String) -> String? {
    if let text = between("\"--hook-function ", "\"", of: line) {
      return "--hook-function \(text)"
    }
    guard line.contains("undeclared"),
      let name = between("'", "'", of: line)
    else { return nil }
    return
      "--hook-function \(name): the hook has no function of this name: give the name of the function that io_mem_abort() has to call"
  }

  /// A line with the paths of the user.
  private func show(_ line: String) -> String {
    var line = line.count > Self.longestLine ? line.prefix(Self.longestLine) + "..." : line[...]
    for (compiled, shown) in directories where !compiled.isEmpty {
      line = line.replacing(compiled, with: shown)[...]
    }
    // A temporary file of the compiler.
    if line.hasPrefix("assembly of the code/"), let colon = line.firstIndex(of: ":") {
      line = "assembly of the code" + line[colon...]
    }
    var start = ""
    for prefix in ["In file included from ", "                 from "] where line.hasPrefix(prefix)
    {
      start = prefix
      line = line.dropFirst(prefix.count)
    }
    var name = line.prefix { $0 != ":" && $0 != "," }
    if name.hasPrefix("./") {
      line = line.dropFirst(2)
      name = name.dropFirst(2)
    }
    if names.contains(String(name)) { start += shownDirectory }
    return (start + line).printable(allowing: ["\t"])
  }

  // MARK: - Advice

  /// Advice on the errors that this program knows better than the tools.
  func advice(on output: String) -> [String] {
    var found: [String] = []
    for line in lines(of: output) {
      guard let advice = advice(onLine: line), !found.contains(advice) else { continue }
      found.append(advice)
      if found.count == Self.mostAdvice { break }
    }
    return found
  }

  private static let list =
    "docs/your-code.md lists what is there; the real kernel has all"

  private func advice(onLine line: String) -> String? {
    if let (place, rest) = split(line, at: ["fatal error: "]),
      let name = between("", ": No such file or directory", of: rest)
        ?? between("'", "' file not found", of: rest)
    {
      return "\(place): \(adviceOnHeader(name))"
    }
    for (before, after) in [
      ("implicit declaration of function '", "'"),
      ("call to undeclared function '", "'"), ("undefined reference to `", "'"),
      ("undefined reference to '", "'"), ("undefined symbol: ", ""),
    ] {
      guard let name = between(before, after, of: line) else { continue }
      if name == "init_module" || name == "module_init" {
        return
          "the module has no init function: name it by module_init(FUNCTION), or call it init_module"
      }
      let place = split(line, at: ["error: ", "undefined reference"])?.place ?? shownDirectory
      return
        "\(place): virt-walker has no function \(name)(): look at its spelling and at the #include of its header; docs/your-code.md lists the functions that are there; the real kernel has all"
    }
    let assembly = [
      "no such instruction", "bad register name", "invalid instruction mnemonic",
      "impossible constraint in 'asm'", "unknown register name", "unknown mnemonic",
      "too many memory references", "junk `", "invalid instruction suffix",
    ]
    if let (place, rest) = split(line, at: ["Error: ", "error: "]),
      assembly.contains(where: { rest.contains($0) })
    {
      return
        "\(place): the code is compiled for this machine, which does not have the instructions of another architecture: use the kernel's functions instead of inline assembly; the real kernel runs it on arm64"
    }
    return nil
  }

  private func adviceOnHeader(_ name: String) -> String {
    let programs: Set = [
      "stdio.h", "stdlib.h", "string.h", "unistd.h", "stdint.h", "errno.h", "fcntl.h", "assert.h",
      "pthread.h", "sys/ioctl.h", "sys/types.h", "sys/mman.h", "sys/stat.h",
    ]
    if programs.contains(name) {
      return
        "<\(name)> is a header of programs: the kernel's code has headers such as <linux/module.h> and <linux/string.h>"
    }
    let kernel = [
      "linux/", "asm/", "asm-generic/", "uapi/", "kvm/", "trace/", "net/", "clocksource/",
    ]
    if kernel.contains(where: { name.hasPrefix($0) }) {
      return
        "virt-walker has no <\(name)>: docs/your-code.md lists the headers that are there; the real kernel has all"
    }
    return
      "\(name) is not there: only the headers beside a C file are taken, and those in the directory of a module"
  }

  /// The place `FILE:LINE` at the beginning of a line, and the text after one of the marks.
  private func split(_ line: String, at marks: [String]) -> (place: String, rest: String)? {
    for mark in marks {
      guard let range = line.firstRange(of: mark) else { continue }
      let parts = line[..<range.lowerBound].split(separator: ":")
      // The last parts are the line, perhaps the column, and a space.
      guard let number = parts.indices.dropFirst().first(where: { UInt(parts[$0]) != nil }) else {
        continue
      }
      let place = parts[...number].joined(separator: ":")
      return (place, String(line[range.upperBound...]))
    }
    return nil
  }

  private func between(_ start: String, _ end: String, of text: String) -> String? {
    guard let first = start.isEmpty ? text.startIndex : text.firstRange(of: start)?.upperBound
    else { return nil }
    let rest = text[first...]
    guard let last = end.isEmpty ? rest.endIndex : rest.firstRange(of: end)?.lowerBound else {
      return nil
    }
    return rest[..<last].isEmpty ? nil : String(rest[..<last])
  }
}

/// The places of addresses, from the output of addr2line(1).
struct SymbolPlaces {
  /// The directory of the user's files, as the debug information names it and as the user has given it.
  let directory: (compiled: String, shown: String)

  /// The arguments of addr2line for addresses in a program. Each address has its lines after a line with the address.
  static func arguments(program: String, _ addresses: [UInt64]) -> [String] {
    ["-a", "-f", "-i", "-e", program] + addresses.map { "0x" + String($0, radix: 16) }
  }

  /// The places of `count` addresses.
  func parse(_ output: String, count: Int) -> [[SourcePlace]] {
    var all: [[SourcePlace]] = []
    var function: String?
    for line in output.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.hasPrefix("0x"), line.dropFirst(2).allSatisfy(\.isHexDigit) {
        all.append([])
        function = nil
      } else if let name = function {
        function = nil
        guard !all.isEmpty, let place = place(name, line) else { continue }
        all[all.count - 1].append(place)
      } else if !line.isEmpty {
        function = String(line)
      }
    }
    all = Array(all.prefix(count))
    return all + [[SourcePlace]](repeating: [], count: count - all.count)
  }

  /// The place that a line such as `/home/a/x.c:12 (discriminator 3)` names; nil if the file is not known.
  private func place(_ function: String, _ text: Substring) -> SourcePlace? {
    var text = text
    if let range = text.firstRange(of: " (discriminator") { text = text[..<range.lowerBound] }
    guard let colon = text.lastIndex(of: ":") else { return nil }
    var file = String(text[..<colon])
    guard file != "??" else { return nil }
    let line = Int(text[text.index(after: colon)...]) ?? 0
    var isUsers = false
    if !directory.compiled.isEmpty, file.hasPrefix(directory.compiled) {
      isUsers = true
      file = directory.shown + file.dropFirst(directory.compiled.count)
    }
    return SourcePlace(
      function: function.printable, file: file.printable, line: line, isUsers: isUsers)
  }
}
