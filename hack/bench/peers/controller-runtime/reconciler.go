package main

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	ownerIndex = "vm"

	// The measured controller's rule for coalescing status writes, for the coalescing variant.
	unhurried = 16
	patience  = 30 * time.Second
	usualPace = 20 * time.Millisecond
	allowance = 2
	measured  = 32
	tooFew    = 8
)

// wait is the time since which a VM has been starting, and the time until which its status write may be delayed.
type wait struct{ since, until time.Time }

// Reconciler runs every VM in one pod, and publishes the pod's state.
type Reconciler struct {
	client.Client

	// Coalesce delays the status writes of starting VMs, so that one write publishes several phases.
	Coalesce bool

	mutex    sync.Mutex
	waits    map[types.NamespacedName]wait
	arrivals []time.Time
}

// Reconcile brings one VM a step closer to its spec.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var vm VirtualMachine
	if err := r.Get(ctx, request.NamespacedName, &vm); err != nil {
		r.arrived(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err) // the garbage collector deletes its pod, by the ownerRef
	}
	if vm.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	var pods corev1.PodList
	if err := r.List(ctx, &pods, client.InNamespace(vm.Namespace), client.MatchingFields{ownerIndex: string(vm.UID)}); err != nil {
		return ctrl.Result{}, err
	}
	incarnation := int32(0)
	if vm.Status.Incarnation != nil {
		incarnation = *vm.Status.Incarnation
	}
	var current *corev1.Pod
	for i := range pods.Items {
		pod := &pods.Items[i]
		if number := incarnationOf(pod); number >= incarnation {
			incarnation, current = number, pod
		}
	}
	if !vm.running() {
		return ctrl.Result{}, r.stop(ctx, &vm, pods.Items, incarnation)
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod != current && pod.DeletionTimestamp == nil {
			if err := r.deletePod(ctx, pod); err != nil {
				return ctrl.Result{}, err
			}
		}
	}
	if current != nil {
		return r.follow(ctx, &vm, current, incarnation)
	}
	if len(pods.Items) > 0 {
		return ctrl.Result{}, nil // the pod of the previous incarnation is being deleted
	}
	if vm.Status.PodUID != "" {
		return ctrl.Result{}, r.replace(ctx, &vm, incarnation+1)
	}
	pod, err := launcherPod(&vm, incarnation, r.Scheme())
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, client.IgnoreAlreadyExists(r.Create(ctx, pod))
}

// follow keeps the pod's usage current and publishes its phase.
func (r *Reconciler) follow(ctx context.Context, vm *VirtualMachine, pod *corev1.Pod, incarnation int32) (ctrl.Result, error) {
	if err := r.refresh(ctx, vm, pod); err != nil {
		return ctrl.Result{}, err
	}
	if wait := r.writeDelay(client.ObjectKeyFromObject(vm), pod); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	now := wholeSeconds(time.Now())
	return ctrl.Result{}, r.publish(ctx, vm, VirtualMachineStatus{
		Phase:       phaseOf(pod),
		NodeName:    pod.Spec.NodeName,
		PodName:     pod.Name,
		PodUID:      string(pod.UID),
		Incarnation: &incarnation,
		Conditions:  conditions(vm, newSteps(&vm.Status, incarnation, pod, now), readiness(pod), now),
	}, now)
}

// refresh copies the VM's consumption to its pod, in one patch, if any differs.
func (r *Reconciler) refresh(ctx context.Context, vm *VirtualMachine, pod *corev1.Pod) error {
	wanted := usageAnnotations(consumptionOf(vm))
	current := true
	for key, value := range wanted {
		current = current && pod.Annotations[key] == value
	}
	if current || pod.DeletionTimestamp != nil {
		return nil
	}
	before := pod.DeepCopy()
	for key, value := range wanted {
		pod.Annotations[key] = value
	}
	return r.Patch(ctx, pod, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func (r *Reconciler) stop(ctx context.Context, vm *VirtualMachine, pods []corev1.Pod, incarnation int32) error {
	for i := range pods {
		if pods[i].DeletionTimestamp == nil {
			if err := r.deletePod(ctx, &pods[i]); err != nil {
				return err
			}
		}
	}
	if len(pods) > 0 {
		return nil
	}
	if vm.Status.Phase != stopped && vm.Status.PodUID != "" {
		incarnation++
	}
	now := wholeSeconds(time.Now())
	return r.publish(ctx, vm, VirtualMachineStatus{
		Phase:       stopped,
		Incarnation: &incarnation,
		Conditions: conditions(vm, []step{{stopped, now}},
			verdict{reason: "Stopped", message: "spec.running is false"}, now),
	}, now)
}

// replace begins the VM's next incarnation, since the pod of the current one was seen and no longer exists.
func (r *Reconciler) replace(ctx context.Context, vm *VirtualMachine, incarnation int32) error {
	now := wholeSeconds(time.Now())
	name := podName(vm, incarnation)
	return r.publish(ctx, vm, VirtualMachineStatus{
		Phase:       scheduling,
		PodName:     name,
		Incarnation: &incarnation,
		Conditions: conditions(vm, []step{{scheduling, now}},
			verdict{reason: "PodNotExists", message: "Pod was deleted; pod " + name + " takes its place"}, now),
	}, now)
}

// publish completes a status and writes it if it differs from the current one, guarded by the VM's resourceVersion.
func (r *Reconciler) publish(ctx context.Context, vm *VirtualMachine, wanted VirtualMachineStatus, now metav1.Time) error {
	used := consumptionOf(vm)
	wanted.CPUConsumption, wanted.MemoryConsumption = used.cpu, used.memory
	wanted.CreatedAt = vm.Status.CreatedAt
	if wanted.CreatedAt == nil {
		wanted.CreatedAt = &vm.CreationTimestamp
	}
	if equality.Semantic.DeepEqual(wanted, vm.Status) {
		return nil
	}
	vm.Status = wanted
	return r.Status().Update(ctx, vm)
}

func (r *Reconciler) deletePod(ctx context.Context, pod *corev1.Pod) error {
	return client.IgnoreNotFound(r.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}))
}

// writeDelay returns how long the status write may wait: in a burst most pods run by then, and one write publishes all
// phases.
func (r *Reconciler) writeDelay(key types.NamespacedName, pod *corev1.Pod) time.Duration {
	if !r.Coalesce {
		return 0
	}
	if !progressing(pod) {
		r.arrived(key)
		return 0
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := time.Now()
	its, known := r.waits[key]
	if !known {
		its = wait{now, now}
	}
	r.waits[key] = its
	excess := len(r.waits) - unhurried
	if excess <= 0 {
		r.arrivals = r.arrivals[:0]
		return 0
	}
	moved := its.since
	if last := len(r.arrivals) - 1; last >= 0 && r.arrivals[last].After(moved) {
		moved = r.arrivals[last]
	}
	until := moved.Add(allowance * time.Duration(excess) * r.pace())
	if latest := its.since.Add(patience); until.After(latest) {
		until = latest
	}
	if until.After(its.until) {
		its.until = until
		r.waits[key] = its
	}
	return its.until.Sub(now)
}

// pace is the mean time between the latest arrivals of this burst.
func (r *Reconciler) pace() time.Duration {
	if len(r.arrivals) < tooFew {
		return usualPace
	}
	return r.arrivals[len(r.arrivals)-1].Sub(r.arrivals[0]) / time.Duration(len(r.arrivals)-1)
}

func (r *Reconciler) arrived(key types.NamespacedName) {
	if r.Coalesce {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if _, known := r.waits[key]; known {
			delete(r.waits, key)
			r.arrivals = append(r.arrivals[max(0, len(r.arrivals)-measured+1):], time.Now())
		}
	}
}
