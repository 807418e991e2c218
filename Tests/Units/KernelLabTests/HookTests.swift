import SystemPackage
import Testing

@testable import KernelLab

/// A tree with small files of KVM.
private let mmio = """
  #include <linux/kvm_host.h>
  /* int kvm_comment(void) { } */
  void kvm_mmio_write_buf(void *buf, unsigned int len, unsigned long data)
  {
  }

  static int helper(void)
  {
  \treturn 0;
  }

  int kvm_handle_mmio_return(struct kvm_vcpu *vcpu)
  {
  \treturn 1;
  }

  int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
  {
  \tint ret;

  \trt = kvm_vcpu_dabt_get_rd(vcpu);

  \treturn 0;
  }

  """
private let hypercalls = """
  int kvm_hvc_call_handler(struct kvm_vcpu *vcpu)
  {
  \treturn 1;
  }

  int kvm_arm_get_fw_num_regs(struct kvm_vcpu *vcpu)
  {
  \treturn 0;
  }

  """

@Suite struct HookTests {
  private let directory: TestDirectory
  private var source: FilePath { FilePath(directory.path) }

  init() throws {
    directory = try TestDirectory()
    try directory.write("arch/arm64/kvm/mmio.c", mmio)
    try directory.write("arch/arm64/kvm/hypercalls.c", hypercalls)
    try directory.write("arch/arm64/kvm/Makefile", "kvm-y += mmio.o\n")
  }

  private func insert(
    _ text: String, function: String? = nil, given: String = "dir/my hook.c",
    headers: [(name: String, bytes: [UInt8])] = []
  ) throws -> [String: String] {
    var overlay = Overlay()
    try HookInsertion(
      given: given, bytes: Array(text.utf8), function: function, headers: headers
    ).insert(into: &overlay, of: source, call: "CALL\n")
    return overlay.files.mapValues { $0.map { String(decoding: $0, as: UTF8.self) } ?? "-" }
  }

  @Test func functionIsCalledInIOMemAbortAndInTheHandlerOfHypercalls() throws {
    let files = try insert(
      "static int hook(struct kvm_vcpu *vcpu) { return 0; }", function: "hook",
      given: "/home/me/hook.c", headers: [("hook.h", Array("h".utf8))])
    let kvm = "arch/arm64/kvm"
    #expect(
      Set(files.keys) == [
        "\(kvm)/mmio.c", "\(kvm)/hypercalls.c", "\(kvm)/Makefile", "\(kvm)/virt_walker_hook.c",
        "\(kvm)/virt-walker/hook.c", "\(kvm)/virt-walker/hook.h",
      ])
    #expect(
      files["\(kvm)/virt_walker_hook.c"]
        == "#include \"virt-walker/hook.c\"\n#define HOOK_FUNCTION hook\nCALL\n")
    let changed = try #require(files["\(kvm)/mmio.c"])
    #expect(
      changed.contains(
        "\trt = kvm_vcpu_dabt_get_rd(vcpu);\n\tret = virt_walker_hook_mmio(vcpu, fault_ipa, is_write, len, rt);\n\tif (ret)\n\t\treturn ret;\n"
      ))
    let handler = try #require(files["\(kvm)/hypercalls.c"])
    #expect(
      handler.contains(
        "static int __maybe_unused virt_walker_original_kvm_hvc_call_handler(struct kvm_vcpu"))
    #expect(
      handler.contains(
        "return virt_walker_hook_hypercall(vcpu) ?: virt_walker_original_kvm_hvc_call_handler(vcpu);"
      ))
    #expect(files["\(kvm)/Makefile"]!.contains("kvm-y += virt_walker_hook.o\n"))
  }

  @Test func wholeFileReplacesTheKernelsOne() throws {
    let text = mmio.replacing("return 1;", with: "return 2;")
    let files = try insert(text)
    #expect(files == ["arch/arm64/kvm/mmio.c": text])
  }

  @Test func functionOfKVMAloneReplacesThatFunction() throws {
    let files = try insert(
      "int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t ipa) { return 1; }",
      given: "hook.c")
    let changed = try #require(files["arch/arm64/kvm/mmio.c"])
    #expect(
      changed.contains(
        "static int __maybe_unused virt_walker_original_io_mem_abort(struct kvm_vcpu *vcpu"))
    #expect(changed.contains("\nvoid kvm_mmio_write_buf("))
    #expect(files["arch/arm64/kvm/hypercalls.c"] == nil)
    #expect(
      files["arch/arm64/kvm/virt_walker_hook.c"] == "#include \"virt-walker/hook.c\"\n")
  }

  @Test func nameOfTheFileMeansNothingToMake() throws {
    for given in ["a b.c", "$(shell id).c", "-x.c", ".c", "x\"y.c", "../a;b.c"] {
      let files = try insert(
        "int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t ipa) { return 1; }", given: given)
      #expect(files.keys.contains("arch/arm64/kvm/virt-walker/hook.c"), "\(given)")
    }
  }

  @Test func wrongHooksAreTold() {
    func message(_ text: String, _ function: String?) -> String {
      do {
        _ = try insert(text, function: function)
        return ""
      } catch {
        return "\(error)"
      }
    }
    #expect(message("int other(void) { return 0; }", nil).contains("--hook-function NAME"))
    #expect(
      message("int other(void) { return 0; }", "absent").contains("defines no function"))
  }

  @Test func functionsOfAFile() {
    let text = """
      #define F(x) int x(void) { }
      // int commented(void) {
      static const struct ops ops = { .read = read_it, };
      struct kvm_vcpu *first(int a)
      { char *s = "int inner(void) {"; return 0; }
      static inline int second(void) { if (1) { } }
      int declared(void);
      __attribute__((noinline)) int third(int (*f)(void)) {
      }
      struct point { int x; };
      enum { A, B };
      int array[] = { 1, 2 };
      int fourth(void)
      {
      }
      """
    let functions = CFunctions(in: Array(text.utf8))
    #expect(functions.definitions.map(\.name) == ["first", "second", "third", "fourth"])
    #expect(functions.globals.map(\.name) == ["first", "third", "fourth"])
  }
}
