import SystemPackage

/// The observer's calls in KVM, which tell each invalidation of stage-2 TLB entries (Kernel/lab/invalidation.h).
///
/// They are put into the tree behind the user's changes, so that a diff meets the files that it was made for, and the lines of the user's files
/// keep their numbers.
struct InvalidationCalls {
  private static let kvm = "arch/arm64/kvm/"
  private static let directory = "virt-walker-lab"
  private static let call = "kvm_call_hyp(__kvm_tlb_flush_vmid"
  private static let files = ["mmu.c", "hyp/pgtable.c"]

  /// The content of the files invalidation.h and invalidation.c.
  let header, source: [UInt8]

  /// Puts the calls into a tree.
  ///
  /// - Returns: Whether there are invalidations where all versions of KVM have them.
  func insert(into overlay: inout Overlay, of tree: FilePath) throws(LabFailure) -> Bool {
    let path = "\(Self.kvm)Makefile"
    guard let makefile = overlay.content(of: path, in: tree) else {
      throw LabFailure("\(path) is missing in the tree: give --linux a kernel's tree for arm64")
    }
    let own = "\(Self.kvm)\(Self.directory)/"
    let changed = overlay.files.keys.filter { $0.hasPrefix(Self.kvm) && $0.hasSuffix(".c") }
    let usual = Self.files.map { Self.kvm + $0 }
    let found = Set(usual + changed).filter { name in
      guard let text = overlay.content(of: name, in: tree),
        let replaced = Self.replacing(text, depth: name.dropFirst(Self.kvm.count))
      else { return false }
      overlay.set(name, replaced)
      return true
    }
    overlay.set("\(own)invalidation.h", header)
    overlay.set("\(own)invalidation.c", source)
    overlay.set(path, makefile + "\nkvm-y += \(Self.directory)/invalidation.o\n".utf8)
    return found.isSuperset(of: usual)
  }

  /// The text with the calls; nil if it has no invalidation.
  ///
  /// - Parameter depth: The path of the file in KVM's directory.
  private static func replacing(_ text: [UInt8], depth: Substring) -> [UInt8]? {
    let text = String(decoding: text, as: UTF8.self)
    guard text.contains(call) else { return nil }
    let up = String(repeating: "../", count: depth.count { $0 == "/" })
    let replaced = text.replacing(
      call, with: call.replacing("kvm_call_hyp", with: "virt_walker_call_hyp"))
    return Array("#include \"\(up)\(directory)/invalidation.h\"\n#line 1\n\(replaced)".utf8)
  }
}
