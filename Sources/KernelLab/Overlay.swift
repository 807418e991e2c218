import Hashing
import SystemPackage
import UserCode

/// The files of a kernel's tree that differ from the clean tree of its version.
struct Overlay: Equatable {
  /// The content of each changed file; nil for a file that is removed.
  private(set) var files: [String: [UInt8]?] = [:]
  /// The names of the user's files in the messages of the compiler: the path in the tree, and the path that the user has given.
  var shownNames: [String: String] = [:]

  var isEmpty: Bool { files.isEmpty }

  /// The content of a file of the changed tree; nil if the tree does not have it.
  func content(of name: String, in source: FilePath) -> [UInt8]? {
    if let file = files[name] { return file }
    return LabFiles.read(name, in: source)
  }

  mutating func set(_ name: String, _ bytes: [UInt8]?) { files[name] = .some(bytes) }

  /// Adds the files to the hash of the inputs.
  func add(to hash: inout InputHash) {
    for (name, bytes) in files.sorted(by: { $0.key < $1.key }) {
      hash.add(name)
      hash.add(bytes == nil ? "removed" : "file")
      hash.add(bytes ?? [])
    }
  }
}

/// A hook in a file of the user's, which becomes a part of KVM.
///
/// The meaning of the file is that of `--hook` on the model: a whole file of KVM, a function of KVM alone, or a function that
/// `io_mem_abort()` or the handler of hypercalls calls.
struct HookInsertion {
  /// The path that the user has given.
  let given: String
  let bytes: [UInt8]
  let function: String?
  /// The headers beside the file.
  let headers: [(name: String, bytes: [UInt8])]

  private static let kvm = "arch/arm64/kvm/"
  /// The files whose functions a hook can replace.
  private static let replaced = [
    "mmio.c", "hypercalls.c", "mmu.c", "hyp/pgtable.c", "handle_exit.c", "psci.c", "arm.c",
  ]
  private static let handlers = ["kvm_smccc_call_handler", "kvm_hvc_call_handler"]
  /// The directory of the user's files in the tree, and the file that includes the hook.
  static let directory = "\(kvm)virt-walker"
  private static let source = "virt_walker_hook.c"
  private static let original = "virt_walker_original_"

  /// The name of the hook's file in the tree.
  private var name: String { Self.safeName(given) }

  /// The last part of a path, without characters that `make` or the compiler read in another way.
  static func safeName(_ path: String) -> String {
    let name = path.split(separator: "/").last.map(String.init) ?? ""
    let isSafe = name.utf8.allSatisfy {
      (65...90).contains($0) || (97...122).contains($0) || (48...57).contains($0)
        || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".")
    }
    return isSafe && !name.hasPrefix(".") && !name.hasPrefix("-") && !name.isEmpty
      ? name : "hook.c"
  }

  /// Puts the hook into a tree.
  ///
  /// - Parameter call: The text of the file that calls the hook's function.
  func insert(
    into overlay: inout Overlay, of source: FilePath, call: String
  ) throws(LabFailure) {
    let own = CFunctions(in: bytes)
    let globals = Set(own.globals.map(\.name))
    guard function == nil || own.definition(of: function!) != nil else {
      throw LabFailure(
        "--hook-function \(function!): \(given) defines no function of this name: give the name of a function that is in the file"
      )
    }
    for file in Self.replaced {
      let path = Self.kvm + file
      guard let original = overlay.content(of: path, in: source) else { continue }
      let names = CFunctions(in: original).globals.map(\.name)
      guard !names.isEmpty, globals.isSuperset(of: names) else { continue }
      overlay.set(path, bytes)
      overlay.shownNames[path] = given
      // The kernel's own directory is the place of the headers, which are the kernel's with the user's changes.
      for header in headers where overlay.content(of: Self.kvm + header.name, in: source) == nil {
        overlay.set(Self.kvm + header.name, header.bytes)
        overlay.shownNames[Self.kvm + header.name] = shown(header.name)
      }
      return
    }
    let renamed = try rename(globals, in: &overlay, of: source)
    let called = function.flatMap { renamed.contains($0) ? nil : $0 }
    guard called != nil || !renamed.isEmpty else {
      throw LabFailure(
        "\(given) has neither io_mem_abort() nor a handler of hypercalls, and is no whole mmio.c of this kernel: name the hook's function by --hook-function NAME"
      )
    }
    overlay.set("\(Self.directory)/\(name)", bytes)
    overlay.shownNames["\(Self.directory)/\(name)"] = given
    for header in headers {
      overlay.set("\(Self.directory)/\(header.name)", header.bytes)
      overlay.shownNames["\(Self.directory)/\(header.name)"] = shown(header.name)
    }
    var text = "#include \"virt-walker/\(name)\"\n"
    if let called {
      text += "#define HOOK_FUNCTION \(called)\n\(call)"
      try insertCalls(into: &overlay, of: source)
    }
    overlay.set(Self.kvm + Self.source, Array(text.utf8))
    try addObject(to: &overlay, of: source)
  }

  private func shown(_ header: String) -> String {
    let directory = FilePath(given).removingLastComponent()
    return directory.isEmpty ? header : directory.appending(header).string
  }

  /// Gives the kernel's functions that the hook defines, too, another name.
  private func rename(
    _ names: Set<String>, in overlay: inout Overlay, of source: FilePath
  ) throws(LabFailure) -> Set<String> {
    var renamed: Set<String> = []
    for file in Self.replaced {
      let path = Self.kvm + file
      guard var text = overlay.content(of: path, in: source) else { continue }
      let found = CFunctions(in: text).globals.filter { names.contains($0.name) }
      guard !found.isEmpty else { continue }
      for definition in found.reversed() {
        Self.rename(definition, in: &text)
        renamed.insert(definition.name)
      }
      overlay.set(path, text)
    }
    return renamed
  }

  /// The compiler gets no warning about a function that nothing calls.
  private static func rename(_ definition: CFunctions.Definition, in text: inout [UInt8]) {
    text.insert(contentsOf: "__maybe_unused \(original)".utf8, at: definition.offset)
    text.insert(contentsOf: "static ".utf8, at: definition.start)
  }

  private func insertCalls(into overlay: inout Overlay, of source: FilePath) throws(LabFailure) {
    let path = "\(Self.kvm)mmio.c"
    let line = "\n\trt = kvm_vcpu_dabt_get_rd(vcpu);\n"
    guard
      var text = overlay.content(of: path, in: source).map({ String(decoding: $0, as: UTF8.self) }),
      let place = text.ranges(of: line).last
    else {
      throw LabFailure(
        "\(path) of this kernel has no line 'rt = kvm_vcpu_dabt_get_rd(vcpu);', behind which the hook is called: give a whole mmio.c to --hook, or a diff to --patch"
      )
    }
    text.insert(
      contentsOf:
        "\tret = virt_walker_hook_mmio(vcpu, fault_ipa, is_write, len, rt);\n\tif (ret)\n\t\treturn ret;\n",
      at: place.upperBound)
    guard let function = CFunctions(in: Array(text.utf8)).definition(of: "io_mem_abort") else {
      throw LabFailure("\(path) of this kernel has no io_mem_abort(): give a diff to --patch")
    }
    text.insert(
      contentsOf:
        "int virt_walker_hook_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,\n\t\t\t  unsigned long rt);\n\n",
      at: text.utf8.index(text.startIndex, offsetBy: function.start))
    overlay.set(path, Array(text.utf8))

    let hypercalls = "\(Self.kvm)hypercalls.c"
    guard var text = overlay.content(of: hypercalls, in: source),
      let handler = CFunctions(in: text).globals.first(where: { Self.handlers.contains($0.name) })
    else { return }
    Self.rename(handler, in: &text)
    text +=
      """

      int virt_walker_hook_hypercall(struct kvm_vcpu *vcpu);

      int \(handler.name)(struct kvm_vcpu *vcpu)
      {
      \treturn virt_walker_hook_hypercall(vcpu) ?: \(Self.original)\(handler.name)(vcpu);
      }

      """.utf8
    overlay.set(hypercalls, text)
  }

  private func addObject(to overlay: inout Overlay, of source: FilePath) throws(LabFailure) {
    let path = "\(Self.kvm)Makefile"
    guard var text = overlay.content(of: path, in: source) else {
      throw LabFailure("\(path) is missing in the tree: give --linux a kernel's tree for arm64")
    }
    text +=
      """

      kvm-y += \(Self.source.dropLast(2)).o
      CFLAGS_\(Self.source.dropLast(2)).o := -I$(srctree)/\(Self.kvm) -Wno-missing-prototypes

      """.utf8
    overlay.set(path, text)
  }
}
